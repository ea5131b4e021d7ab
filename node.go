package cove

// NodeID names a host that runs sandboxes.
type NodeID string

// LocalNode is the node of a server that runs its sandboxes itself.
const LocalNode NodeID = "local"
