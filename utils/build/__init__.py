"""The same source files under other names: for the installed package, torch.hub and folders on the Hugging Face hub."""
