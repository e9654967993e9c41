"""The Tasks that have not ended and the TaskQueues they name: the state that intake and status share."""
