package workload

func dedup() Workload { return Workload{Name: "dedup"} }
func lease() Workload { return Workload{Name: "lease"} }
