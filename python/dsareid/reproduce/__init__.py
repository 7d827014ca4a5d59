"""Every row of the paper's tables as a command: recipes, and what runs and compares them."""
