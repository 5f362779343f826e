"""How a trained model becomes one folder that opens every door, and a repository on the Hub."""
