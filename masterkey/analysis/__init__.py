"""What is known about filters: quality, drift, families, models, and pictures of it all."""
