"""TiDB: a server or cluster that speaks MySQL's protocol."""
