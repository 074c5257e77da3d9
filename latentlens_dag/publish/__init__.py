"""Making a release of studies or an index, and putting it on the Hub."""
