"""What workers hold of a budget whose queue is not scaled. Pure."""

from collections.abc import Iterable
from decimal import Decimal

from galley.resources.pod_resources import amount
from galley_operator.autoscaler.shares import Cost
from galley_operator.fleet.pods import Pod, PodSpec


def left_of(pods: Iterable[Pod]) -> Cost:
    """Return what the workers of a queue hold together, given all its pods.

    A pod counts that is on a node, until it has ended: what finds no node, or is only asked for, takes
    nothing from others, whatever it requests.
    """
    return requested(pod.spec for pod in pods if pod.placed)


def requested(pods: Iterable[PodSpec]) -> Cost:
    """Return what some pods request."""
    total = Cost()
    for pod in pods:
        total = total.plus(Cost(1, _sum(pod, "cpu"), _sum(pod, "memory")))
    return total


def _sum(pod: PodSpec, name: str) -> Decimal:
    """Return what all containers request of something: a limit counts where there is no request."""
    given = ({**each.resources.limits, **each.resources.requests} for each in pod.containers)
    return sum((_amount(each.get(name, "0")) for each in given), Decimal(0))


def _amount(quantity: str) -> Decimal:
    try:
        return amount(quantity)
    except (ArithmeticError, KeyError):
        return Decimal(0)  # no API server accepts that
