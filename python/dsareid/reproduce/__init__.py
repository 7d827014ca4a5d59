"""The paper's tables as a command: a recipe for each row, and the code that runs and compares them."""
