"""Who may do what on NATS: the keys of an account, and the credentials of each queue signed with them."""
