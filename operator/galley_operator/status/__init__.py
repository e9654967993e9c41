"""From records in the broker to the status of Task objects, and their removal when it is time."""
