package network

// InNetNS lets tests act inside a slot and in namespaces of their own.
func InNetNS(path string, fn func() error) error { return inNetNS(path, fn) }

// CreateNetNS and RemoveNetNS make the namespaces that play the internet and
// the sandboxes.
func CreateNetNS(path string) error { return createNetNS(path) }
func RemoveNetNS(path string) error { return removeNetNS(path) }

// MaxQueries is the bound on a slot's queries in progress.
const MaxQueries = maxQueries
