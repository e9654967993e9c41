"""What `galley doctor` looks at in a cluster: `facts` are gathered, `judge` says what they mean."""
