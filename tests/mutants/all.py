"""All mutants there are."""

from tests.mutants import (
    of_admitting,
    of_attempts,
    of_claims,
    of_data,
    of_encryption,
    of_gateway,
    of_keys,
    of_more,
    of_reading,
    of_scaling,
    of_schedules,
    of_settling,
    of_statuses,
    of_submitting,
    of_topics,
    of_workflows,
)

MUTANTS = (
    *of_admitting.MUTANTS,
    *of_attempts.MUTANTS,
    *of_claims.MUTANTS,
    *of_data.MUTANTS,
    *of_encryption.MUTANTS,
    *of_gateway.MUTANTS,
    *of_keys.MUTANTS,
    *of_more.MUTANTS,
    *of_reading.MUTANTS,
    *of_scaling.MUTANTS,
    *of_schedules.MUTANTS,
    *of_settling.MUTANTS,
    *of_statuses.MUTANTS,
    *of_submitting.MUTANTS,
    *of_topics.MUTANTS,
    *of_workflows.MUTANTS,
)
