"""What is given to the environment of vLLM itself: its folder is on that path, so nothing here imports SAGE."""
