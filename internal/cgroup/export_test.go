package cgroup

// Settings returns "file=value" for each write that limits need.
func Settings(unified bool, controllers []string, l Limits) []string {
	var out []string
	for _, s := range settings(unified, controllers, l) {
		out = append(out, s.file+"="+s.value)
	}
	return out
}

// RefuseWith makes the kernel refuse to enable controllers.
func (t *Tree) RefuseWith(err error) {
	for i := range t.hierarchies {
		t.hierarchies[i].write = func(string, string) error { return err }
	}
}
