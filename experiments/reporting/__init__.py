"""What is measured, drawn and written of finished runs."""
