"""What happens inside a child process: import the modules, run handlers, answer."""
