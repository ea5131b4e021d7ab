package runtime

// Usage is what a sandbox takes of its host, as the host sees it: nothing inside
// is asked, and an idle sandbox stays idle.
type Usage struct {
	Memory int64 // bytes of memory that belong to what runs inside
	Disk   int64 // bytes of its writable layer
}
