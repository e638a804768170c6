package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"onceq/client"
)

func ExampleAdmin() {
	c, ctx := dial(), context.Background()
	defer c.Close()
	var admin *client.Admin = c.Admin()
	settings := client.QueueSettings{LeaseTime: time.Minute, LengthMax: 1000}
	var q client.QueueInfo
	q, err := admin.CreateQueue(ctx, "jobs", settings)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(q.Name, q.Settings.LeaseTime, q.Settings.LengthMax)

	// Created again: fine with the same settings, a conflict that names them with others.
	_, err = admin.CreateQueue(ctx, "jobs", settings)
	fmt.Println(err)
	_, err = admin.CreateQueue(ctx, "jobs", client.QueueSettings{LengthMax: 5})
	fmt.Println(errors.Is(err, client.ErrConflict))

	q, err = admin.UpdateQueue(ctx, "jobs", func(s *client.QueueSettings) { s.LengthMax = 5000 })
	if err != nil {
		log.Fatal(err)
	}
	var n client.QueueCounts = q.Counts
	fmt.Println(q.Settings.LengthMax, n.Ready, n.Stored)
	if _, err := admin.DeleteQueue(ctx, "jobs"); err != nil {
		log.Fatal(err)
	}
	// Output:
	// jobs 1m0s 1000
	// <nil>
	// true
	// 5000 0 0
}

func ExampleAdmin_Peek() {
	c, ctx := with("peeked", "a", "b", "c"), context.Background()
	defer c.Close()
	var page client.Peeked
	page, err := c.Admin().Peek(ctx, "peeked", client.PeekOptions{State: client.Ready, Limit: 2, Bodies: true})
	if err != nil {
		log.Fatal(err)
	}
	var messages []client.MessageInfo = page.Messages
	for _, m := range messages {
		var state client.MessageState = m.State
		fmt.Println(m.ID(), state, string(m.Content.Body))
	}
	fmt.Println(page.More, page.Next.Offset)
	// Output:
	// peeked/0 ready a
	// peeked/1 ready b
	// true 2
}

func ExampleAdmin_Message() {
	c, ctx := with("failing", "a"), context.Background()
	defer c.Close()
	consuming, stop := context.WithCancel(ctx)
	if err := c.Consume(consuming, "failing", func(context.Context, *client.Delivery) error {
		defer stop()
		return client.RetryAfter(time.Hour, errors.New("the shop is closed"))
	}); err != nil {
		log.Fatal(err)
	}
	m, err := c.Admin().Message(ctx, "failing", client.Place{Offset: 0})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(m.State, m.Attempts, m.Failures, m.LastError)
	var events []client.MessageEvent = m.Events
	for _, e := range events {
		fmt.Println(e.Kind, e.Attempt, e.Text)
	}
	var states []client.EditState
	if states, err = c.Admin().DeleteMessages(ctx, "failing", m.Place()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(states)
	// Output:
	// delayed 1 1 the shop is closed
	// nacked 1 the shop is closed
	// [done]
}

func ExampleAdmin_Consumers() {
	c, ctx := with("watched", "a"), context.Background()
	defer c.Close()
	for d, err := range c.Messages(ctx, "watched", client.WithConsumerLabel("worker-1"), client.WithPrefetch(10)) {
		if err != nil {
			log.Fatal(err)
		}
		var consumers []client.ConsumerInfo
		if consumers, err = c.Admin().Consumers(ctx, "watched", 0, 1000); err != nil {
			log.Fatal(err)
		}
		for _, s := range consumers {
			fmt.Println(s.Label, s.Attached, s.Held, s.Credit)
		}
		if err := d.Ack(ctx); err != nil {
			log.Fatal(err)
		}
		break
	}
	// Output: worker-1 true 1 10
}

func ExampleAdmin_Redrive() {
	c, ctx := with("orders.parked", "one", "two"), context.Background()
	defer c.Close()
	for d, err := range c.Messages(ctx, "orders.parked", client.WithPrefetch(1)) {
		if err != nil {
			log.Fatal(err)
		}
		if err := d.Reject(ctx, "no customer "+string(d.Body())); err != nil {
			log.Fatal(err)
		}
		if string(d.Body()) == "two" {
			break
		}
	}
	// Both are parked: there is no dead-letter queue. Those that match are ready again.
	o := client.RedriveOptions{Where: []client.Condition{{Field: client.FieldError, Match: client.MatchRegexp, Value: "two$"}}}
	o.DryRun = true
	would, err := c.Admin().Redrive(ctx, "orders.parked", o)
	fmt.Println(would.Moved, would.Seen, would.Targets, err)
	o.DryRun = false
	var done client.Redriven
	done, err = c.Admin().Redrive(ctx, "orders.parked", o)
	fmt.Println(done.Moved, err)
	// Output:
	// 1 2 map[orders.parked:1] <nil>
	// 1 <nil>
}

func ExampleAdmin_Sessions() {
	c, ctx := with("named"), context.Background()
	defer c.Close()
	p, err := c.NewProducer("named", client.WithName("shop-7"))
	if err != nil {
		log.Fatal(err)
	}
	if _, err := p.Publish(ctx, client.Message{}); err != nil {
		log.Fatal(err)
	}
	var sessions []client.SessionInfo
	if sessions, err = c.Admin().Sessions(ctx, 0, 1000); err != nil {
		log.Fatal(err)
	}
	for _, s := range sessions {
		if s.Name == "shop-7" {
			fmt.Println(s.Name, c.Admin().EndSession(ctx, s)) // what it sends from now on is refused
		}
	}
	_, err = p.Publish(ctx, client.Message{})
	fmt.Println(errors.Is(err, client.ErrSessionExpired))
	// Output:
	// shop-7 <nil>
	// true
}

func ExampleAdmin_Nodes() {
	c, ctx := dial(), context.Background()
	defer c.Close()
	var nodes []client.NodeReport
	nodes, err := c.Admin().Nodes(ctx) // each answers for itself
	if err != nil {
		log.Fatal(err)
	}
	for _, n := range nodes {
		var s client.NodeStatus = n.Status
		fmt.Println(n.Node, n.Err, s.Role)
	}
	var members client.Members
	if members, err = c.Admin().Members(ctx); err != nil {
		log.Fatal(err)
	}
	for _, m := range members.Members {
		var member client.Member = m
		fmt.Println(member.Node, member.Voter, member.Leader)
	}
	// Output:
	// n0 <nil> leader
	// n0 true true
}

func ExampleAdmin_Backup() {
	from, end := another("orders", "a", "b")
	defer end()
	to, end := another("")
	defer end()
	ctx := context.Background()

	var file bytes.Buffer // an *os.File that is renamed once it is whole and synced
	options := client.BackupOptions{Progress: func(client.Progress) {}}
	var made client.BackupSummary
	made, err := from.Admin().Backup(ctx, &file, options)
	if err != nil {
		log.Fatal(err)
	}
	var head client.BackupHead = made.Head
	fmt.Println(head.Queues, head.Messages, made.Bodies)

	// A backup that is read whole is whole.
	parts := 0
	_, err = client.ReadBackup(bytes.NewReader(file.Bytes()), nil, func(uint64, client.BackupPart) error { parts++; return nil })
	fmt.Println(parts > 0, err)

	var done client.RestoreSummary
	if done, err = to.Admin().Restore(ctx, &file, client.RestoreOptions{}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(done.Backup.Bodies, done.Incarnation != head.Incarnation)
	for d, err := range to.Messages(ctx, "orders") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(d.Body()), d.Restored()) // it may have been handled before
		break
	}
	// Output:
	// 1 2 2
	// true <nil>
	// 2 true
	// a true
}
