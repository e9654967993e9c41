"""A Workflow manifest as the workflow that runs: the same one, whichever command applied it."""

from typing import Any

from galley.client import AsyncClient
from galley.resources.workflow import Workflow, WorkflowSpec, graph_of
from galley.workflows import AsyncWorkflow


async def submit_workflow(
    client: AsyncClient, id: str | None, spec: WorkflowSpec, labels: dict[str, str] | None, uid: str = "",  # noqa: A002
) -> AsyncWorkflow[Any]:  # fmt: skip
    """Submit what a spec asks for; the same one under the same id is submitted once.

    Args:
        client: of the namespace it is in.
        id: its id.
        spec: what it asks for.
        labels: those of the Workflow.
        uid: of the object; empty where there is none.

    Raises:
        As `AsyncWorkflows.submit`.
    """
    return await client.workflows.submit(
        graph_of(spec), id=id, on_failure=spec.on_failure, timeout_seconds=float(spec.timeout_seconds),
        labels=labels, uid=uid,
    )  # fmt: skip


async def apply_workflow(client: AsyncClient, manifest: Workflow) -> AsyncWorkflow[Any]:
    """Submit a manifest under its name; `existed` of what is returned is true if it was submitted before.

    Raises:
        As `AsyncWorkflows.submit`.
    """
    metadata = manifest.metadata
    if metadata.namespace != client.namespace:
        client = AsyncClient.over(client.broker, metadata.namespace)
    return await submit_workflow(client, metadata.name, manifest.spec, metadata.labels or None)
