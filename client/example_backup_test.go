package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"onceq/client"
	"onceq/client/onceqtest"
)

// newCluster is a client of an empty cluster of its own, and what ends both.
func newCluster() (*client.Client, func()) {
	dir, err := os.MkdirTemp("", "onceq-example")
	if err != nil {
		log.Fatal(err)
	}
	t := &example{dir: dir}
	c, err := client.Dial(context.Background(), onceqtest.Start(t, 1).URL())
	if err != nil {
		log.Fatal(err)
	}
	return c, func() { c.Close(); t.end() }
}

// A backup goes into a new cluster. What was stored before the backup is there,
// and marked.
func ExampleAdmin_Backup_intoANewCluster() {
	ctx := context.Background()
	c, end := newCluster()
	defer end()
	if _, err := c.Admin().CreateQueue(ctx, "invoices", client.QueueSettings{}); err != nil {
		log.Fatal(err)
	}
	p, err := c.NewProducer("invoices")
	if err != nil {
		log.Fatal(err)
	}
	if _, err := p.Publish(ctx, client.Message{Body: []byte("42 EUR")}); err != nil {
		log.Fatal(err)
	}

	var file bytes.Buffer
	var last client.Progress
	made, err := c.Admin().Backup(ctx, &file, client.BackupOptions{Progress: func(p client.Progress) { last = p }})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(made.Head.Messages, "message in the backup,", last.Bodies, "written")

	other, endOther := newCluster()
	defer endOther()
	restored, err := other.Admin().Restore(ctx, &file, client.RestoreOptions{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("in another life:", restored.Incarnation != made.Head.Incarnation)

	ctx, stop := context.WithCancel(ctx)
	err = other.Consume(ctx, "invoices", func(ctx context.Context, d *client.Delivery) error {
		fmt.Printf("%s restored: %v\n", d.Body(), d.Restored())
		stop()
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// 1 message in the backup, 1 written
	// in another life: true
	// 42 EUR restored: true
}

// A file is read through before anybody relies on it.
func ExampleReadBackup() {
	var file bytes.Buffer
	c, end := newCluster()
	defer end()
	var made client.BackupSummary
	made, err := c.Admin().Backup(context.Background(), &file, client.BackupOptions{})
	if err != nil {
		log.Fatal(err)
	}
	cut := bytes.NewReader(file.Bytes()[:file.Len()-1])
	parts := uint64(0)
	read, err := client.ReadBackup(&file, func(h client.BackupHead) error {
		fmt.Println("of another cluster:", h.Cluster != c.Cluster())
		return nil
	}, func(number uint64, p client.BackupPart) error {
		parts++
		return nil
	})
	fmt.Println("whole:", err == nil && read == made && parts == made.Parts)
	_, err = client.ReadBackup(cut, nil, nil)
	fmt.Println("cut short:", errors.Is(err, client.ErrBadBackup))

	// Output:
	// of another cluster: false
	// whole: true
	// cut short: true
}

// The same backup once more changes nothing, unless it is told to.
func ExampleAdmin_Restore() {
	ctx := context.Background()
	c, end := newCluster()
	defer end()
	if _, err := c.Admin().CreateQueue(ctx, "invoices", client.QueueSettings{}); err != nil {
		log.Fatal(err)
	}
	var file bytes.Buffer
	if _, err := c.Admin().Backup(ctx, &file, client.BackupOptions{}); err != nil {
		log.Fatal(err)
	}
	restore := func(o client.RestoreOptions) (client.RestoreSummary, error) {
		return c.Admin().Restore(ctx, bytes.NewReader(file.Bytes()), o)
	}
	_, err := restore(client.RestoreOptions{})
	fmt.Println("refused:", errors.Is(err, client.ErrNotEmpty))
	s, err := restore(client.RestoreOptions{Force: true})
	fmt.Println("by force:", err == nil, "already there:", s.Already)
	s, err = restore(client.RestoreOptions{})
	fmt.Println("again:", err == nil, "already there:", s.Already)

	// Output:
	// refused: true
	// by force: true already there: false
	// again: true already there: true
}
