"""What is agreed, who may act, and the proof of what happened: contracts, identity, signing, audit and registry."""
