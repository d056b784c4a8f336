"""What of an experiment depends on its task, for the tasks that need more than a line; `experiment` chooses."""
