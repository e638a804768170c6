package cmd_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"onceq/transport/wire"
)

// TestReadme_OptionsTable_IsWhatIsChecked: what the table says of two options of a
// message is what the client checks before it sends, and the client's check is held
// against the machine's elsewhere.
func TestReadme_OptionsTable_IsWhatIsChecked(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]func(m *wire.Message){
		"ordering key": func(m *wire.Message) { m.OrderingKey = "k" },
		"priority":     func(m *wire.Message) { m.Priority = 1 },
		"delay":        func(m *wire.Message) { m.Delay = time.Second },
		"deliver-at":   func(m *wire.Message) { m.DeliverAt = 1 },
		"time to live": func(m *wire.Message) { m.TTL = time.Second },
	}
	var columns []string
	pairs := 0
	for line := range strings.Lines(string(readme)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.Trim(strings.TrimSpace(cells[i]), "*")
		}
		switch {
		case len(cells) == len(set)+1 && cells[0] == "" && set[cells[1]] != nil:
			columns = cells[1:]
		case len(columns) == 0 || len(cells) != len(set)+1 || set[cells[0]] == nil:
			continue
		default:
			for i, says := range cells[1:] {
				if columns[i] == cells[0] {
					continue
				}
				var m wire.Message
				set[cells[0]](&m)
				set[columns[i]](&m)
				goes := wire.CheckOptions([]wire.Message{m}) == nil
				if want := map[bool]string{true: "yes", false: "no"}[goes]; says != want {
					t.Errorf("the README says %q of %s with %s, and it is %q", says, cells[0], columns[i], want)
				}
				pairs++
			}
		}
	}
	if want := len(set) * (len(set) - 1); pairs != want {
		t.Errorf("%d pairs of options are in the table, there are %d", pairs, want)
	}
}
