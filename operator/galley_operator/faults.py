"""Unexpected exceptions of the operator, which conditions show."""

from galley import faults
from galley_operator.errors import OperatorFault


class Faults(faults.Faults):
    """Counts and logs exceptions that are not expected."""

    def caught(self, where: str, error: Exception, about: str = "") -> OperatorFault:
        """Log and count an exception; returns it as an error for a condition."""
        super().caught(where, error, about)
        return OperatorFault(error)
