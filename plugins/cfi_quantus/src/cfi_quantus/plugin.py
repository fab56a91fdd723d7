"""What this plugin offers. Importing it imports no framework."""
