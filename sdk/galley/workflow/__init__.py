"""Workflows: tasks that belong together. Steps follow one another, run beside each other, and are joined.

`shape` is what programs write, `plan` what is stored of it, `state` how far it is; these three are pure.
Workers run workflows (`galley_worker.flows`): docs/adr/0033-workflows.md.
"""
