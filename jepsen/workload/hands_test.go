package workload

import "testing"

func TestHands_EachGoroutineHasANumber(t *testing.T) {
	t.Parallel()
	var h hands
	if a, b := h.mine(), h.mine(); a != 1 || b != 1 {
		t.Fatalf("this goroutine is %d and %d", a, b)
	}
	for want := 2; want < 5; want++ {
		got := make(chan [2]int)
		go func() { got <- [2]int{h.mine(), h.mine()} }()
		if g := <-got; g != [2]int{want, want} {
			t.Fatalf("goroutine %d is %d and %d", want, g[0], g[1])
		}
	}
	if n := h.mine(); n != 1 {
		t.Fatalf("this goroutine was 1 and is %d", n)
	}
}
