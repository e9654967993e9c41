"""All mutants there are."""

from tests.mutants.of_encryption import ENCRYPTION
from tests.mutants.of_more import MORE
from tests.mutants.of_operator import OPERATOR
from tests.mutants.of_sdk import SDK
from tests.mutants.of_worker import WORKER

MUTANTS = (*WORKER, *SDK, *ENCRYPTION, *OPERATOR, *MORE)
