"""What a hostile request, client, neighbour or machine costs: measured with real processes, printed as a table."""
