"""Hot rows as Arrow tables with the lake's types, from the transaction of a snapshot."""
