"""Headers, transactions and receipts that rows are verified against: committed rows, or the node's answers."""
