package inbox

import "fmt"

// key is what makes two deliveries the same message.
type key struct {
	group string
	queue string
	id    string
}

// keyOf scopes a biz-id by the queue's name, which means the same to the sender
// whatever cluster or incarnation holds the queue. A message's place is scoped by
// the queue's number instead: a queue that is deleted and created again has the
// same name and begins again at offset 0. The prefixes, and a '#' that no queue's
// name has, keep the two apart.
func keyOf(group string, m message) key {
	id := m.ID()
	if biz := m.BizID(); biz != "" {
		return key{group, id.Queue, "biz:" + biz}
	}
	return key{group, numberOf(m), fmt.Sprintf("msg:%d/%d", id.Lane, id.Offset)}
}

func numberOf(m message) string {
	id := m.ID()
	return fmt.Sprintf("#%d@%016x", id.QueueNumber, id.Incarnation)
}

// String joins the parts; the first two have no zero byte.
func (k key) String() string { return k.group + "\x00" + k.queue + "\x00" + k.id }
