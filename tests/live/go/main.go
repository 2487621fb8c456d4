// Drives the Go module `centrifuge-go` for the live tests, as js/client.mjs does the npm package.
//
//	client URL json|protobuf
//
// Commands and events are those of js/client.mjs.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/centrifugal/centrifuge-go"
)

const (
	minDelay = 50 * time.Millisecond
	maxDelay = 500 * time.Millisecond
	// For whatever has to be answered: machines of tests are slow, and the default is one second for a handshake.
	patience = 30 * time.Second
)

type fields map[string]any

var output sync.Mutex

func emit(event string, of fields) {
	line := fields{"event": event}
	for name, value := range of {
		line[name] = value
	}
	encoded, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	output.Lock()
	defer output.Unlock()
	_, _ = os.Stdout.Write(append(encoded, '\n'))
}

// Payloads are JSON texts on both kinds of connection.
func unpack(data []byte) any {
	if len(data) == 0 {
		return nil
	}
	return json.RawMessage(data)
}

func info(of centrifuge.ClientInfo) fields {
	return fields{
		"user": of.User, "client": of.Client,
		"conn_info": unpack(of.ConnInfo), "chan_info": unpack(of.ChanInfo),
	}
}

func publication(of centrifuge.Publication) fields {
	tags := of.Tags
	if tags == nil {
		tags = map[string]string{}
	}
	described := fields{"data": unpack(of.Data), "offset": of.Offset, "tags": tags, "info": nil}
	if of.Info != nil {
		described["info"] = info(*of.Info)
	}
	return described
}

func failure(err error) fields {
	code := int64(-1)
	var ours *centrifuge.Error
	if errors.As(err, &ours) {
		code = int64(ours.Code)
	}
	return fields{"code": code, "message": err.Error()}
}

func in(channel string, of fields) fields {
	of["channel"] = channel
	return of
}

func subscribed(
	channel string, position *centrifuge.StreamPosition, data []byte, recoverable, positioned, wasRecovering, recovered bool,
) fields {
	if position == nil {
		position = &centrifuge.StreamPosition{}
	}
	return fields{
		"channel": channel, "recoverable": recoverable, "positioned": positioned,
		"was_recovering": wasRecovering, "recovered": recovered,
		"offset": position.Offset, "epoch": position.Epoch, "data": unpack(data),
	}
}

// The connection in use, which is cut, and its bytes.
type wire struct {
	net.Conn
	received *atomic.Int64
}

func (w *wire) Read(buffer []byte) (int, error) {
	count, err := w.Conn.Read(buffer)
	w.received.Add(int64(count))
	return count, err
}

type position struct {
	Offset uint64 `json:"offset"`
	Epoch  string `json:"epoch"`
}

type filter struct {
	Key string `json:"key"`
	Cmp string `json:"cmp"`
	Val string `json:"val"`
}

type command struct {
	Op          string          `json:"op"`
	Ref         int             `json:"ref"`
	Channel     string          `json:"channel"`
	Token       string          `json:"token"`
	Name        string          `json:"name"`
	GetToken    bool            `json:"get_token"`
	GetState    bool            `json:"get_state"`
	Refuse      bool            `json:"refuse"`
	Recoverable bool            `json:"recoverable"`
	Positioned  bool            `json:"positioned"`
	JoinLeave   bool            `json:"join_leave"`
	Compression bool            `json:"compression"`
	Delta       string          `json:"delta"`
	Filter      *filter         `json:"tf"`
	Data        json.RawMessage `json:"data"`
	Method      string          `json:"method"`
	Limit       int32           `json:"limit"`
	Reverse     bool            `json:"reverse"`
	Since       *position       `json:"since"`
	position                    // of `state`
}

type token struct {
	value   string
	refused bool
}

type driver struct {
	url      string
	format   string
	client   *centrifuge.Client
	tokens   chan token
	states   chan centrifuge.StreamPosition
	received atomic.Int64
	mutex    sync.Mutex
	wire     net.Conn
}

func (d *driver) dial(ctx context.Context, network, address string) (net.Conn, error) {
	connection, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.wire = connection
	return &wire{connection, &d.received}, nil
}

func (d *driver) askForToken(kind, channel string) (string, error) {
	emit("get_token", fields{"kind": kind, "channel": channel})
	given := <-d.tokens
	if given.refused {
		return "", centrifuge.ErrUnauthorized
	}
	return given.value, nil
}

func (d *driver) connect(c command) error {
	config := centrifuge.Config{
		Token: c.Token, Name: c.Name,
		Proxy:             func(*http.Request) (*url.URL, error) { return nil, nil },
		NetDialContext:    d.dial,
		MinReconnectDelay: minDelay, MaxReconnectDelay: maxDelay,
		EnableCompression: c.Compression,
		ReadTimeout:       patience, WriteTimeout: patience, HandshakeTimeout: patience,
	}
	if c.GetToken {
		config.GetToken = func(centrifuge.ConnectionTokenEvent) (string, error) {
			return d.askForToken("connection", "")
		}
	}
	if d.format == "protobuf" {
		d.client = centrifuge.NewProtobufClient(d.url, config)
	} else {
		d.client = centrifuge.NewJsonClient(d.url, config)
	}
	d.listen()
	return d.connectAgain()
}

// It waits for the first attempt, which asks for a token.
func (d *driver) connectAgain() error {
	go func() { _ = d.client.Connect() }()
	return nil
}

func (d *driver) listen() {
	client := d.client
	client.OnConnecting(func(e centrifuge.ConnectingEvent) {
		emit("connecting", fields{"code": e.Code, "reason": e.Reason})
	})
	client.OnConnected(func(e centrifuge.ConnectedEvent) { emit("connected", fields{"client": e.ClientID}) })
	client.OnDisconnected(func(e centrifuge.DisconnectedEvent) {
		emit("disconnected", fields{"code": e.Code, "reason": e.Reason})
	})
	client.OnError(func(e centrifuge.ErrorEvent) { emit("error", failure(e.Error)) })
	client.OnSubscribed(func(e centrifuge.ServerSubscribedEvent) {
		emit("server_subscribed", subscribed(
			e.Channel, e.StreamPosition, e.Data, e.Recoverable, e.Positioned, e.WasRecovering, e.Recovered))
	})
	client.OnUnsubscribed(func(e centrifuge.ServerUnsubscribedEvent) {
		emit("server_unsubscribed", fields{"channel": e.Channel})
	})
	client.OnPublication(func(e centrifuge.ServerPublicationEvent) {
		emit("server_publication", in(e.Channel, publication(e.Publication)))
	})
	client.OnJoin(func(e centrifuge.ServerJoinEvent) {
		emit("server_join", fields{"channel": e.Channel, "info": info(e.ClientInfo)})
	})
	client.OnLeave(func(e centrifuge.ServerLeaveEvent) {
		emit("server_leave", fields{"channel": e.Channel, "info": info(e.ClientInfo)})
	})
}

func (d *driver) subscribe(c command) error {
	config := centrifuge.SubscriptionConfig{
		Token: c.Token, Recoverable: c.Recoverable, Positioned: c.Positioned, JoinLeave: c.JoinLeave,
		Delta:               centrifuge.DeltaType(c.Delta),
		MinResubscribeDelay: minDelay, MaxResubscribeDelay: maxDelay,
	}
	if c.Filter != nil {
		if c.Filter.Cmp != "eq" {
			return fmt.Errorf("no filter %q here", c.Filter.Cmp)
		}
		config.TagsFilter = centrifuge.FilterEq(c.Filter.Key, c.Filter.Val)
	}
	if c.GetToken {
		config.GetToken = func(e centrifuge.SubscriptionTokenEvent) (string, error) {
			return d.askForToken("subscription", e.Channel)
		}
	}
	if c.GetState {
		config.GetState = func(e centrifuge.SubscriptionGetStateEvent) (centrifuge.StreamPosition, error) {
			emit("get_state", fields{"channel": e.Channel})
			return <-d.states, nil
		}
	}
	subscription, err := d.client.NewSubscription(c.Channel, config)
	if err != nil {
		return err
	}
	listenTo(subscription)
	return subscription.Subscribe()
}

func listenTo(subscription *centrifuge.Subscription) {
	channel := subscription.Channel
	subscription.OnSubscribing(func(e centrifuge.SubscribingEvent) {
		emit("subscribing", fields{"channel": channel, "code": e.Code, "reason": e.Reason})
	})
	subscription.OnSubscribed(func(e centrifuge.SubscribedEvent) {
		emit("subscribed", subscribed(
			channel, e.StreamPosition, e.Data, e.Recoverable, e.Positioned, e.WasRecovering, e.Recovered))
	})
	subscription.OnUnsubscribed(func(e centrifuge.UnsubscribedEvent) {
		emit("unsubscribed", fields{"channel": channel, "code": e.Code, "reason": e.Reason})
	})
	subscription.OnPublication(func(e centrifuge.PublicationEvent) {
		emit("publication", in(channel, publication(e.Publication)))
	})
	subscription.OnJoin(func(e centrifuge.JoinEvent) {
		emit("join", fields{"channel": channel, "info": info(e.ClientInfo)})
	})
	subscription.OnLeave(func(e centrifuge.LeaveEvent) {
		emit("leave", fields{"channel": channel, "info": info(e.ClientInfo)})
	})
	subscription.OnError(func(e centrifuge.SubscriptionErrorEvent) {
		emit("subscription_error", in(channel, failure(e.Error)))
	})
}

// An end without a close frame, as when a cable is pulled.
func (d *driver) kill() error {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if err := d.wire.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil // the client comes back from the last cut still
}

func (d *driver) presence(ctx context.Context, channel string) (any, error) {
	result, err := d.client.Presence(ctx, channel)
	clients := fields{}
	for id, client := range result.Clients {
		clients[id] = info(client)
	}
	return clients, err
}

func (d *driver) history(ctx context.Context, c command) (any, error) {
	options := []centrifuge.HistoryOption{
		centrifuge.WithHistoryLimit(c.Limit), centrifuge.WithHistoryReverse(c.Reverse),
	}
	if c.Since != nil {
		since := centrifuge.StreamPosition{Offset: c.Since.Offset, Epoch: c.Since.Epoch}
		options = append(options, centrifuge.WithHistorySince(&since))
	}
	result, err := d.client.History(ctx, c.Channel, options...)
	publications := []fields{}
	for _, each := range result.Publications {
		publications = append(publications, publication(each))
	}
	return fields{"publications": publications, "offset": result.Offset, "epoch": result.Epoch}, err
}

func (d *driver) do(c command) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	switch c.Op {
	case "connect":
		return nil, d.connect(c)
	case "connect_again":
		return nil, d.connectAgain()
	case "disconnect":
		return nil, d.client.Disconnect()
	case "kill":
		return nil, d.kill()
	case "subscribe":
		return nil, d.subscribe(c)
	case "unsubscribe":
		subscription, _ := d.client.GetSubscription(c.Channel)
		return nil, subscription.Unsubscribe()
	case "token":
		d.tokens <- token{c.Token, c.Refuse}
		return nil, nil
	case "state":
		d.states <- centrifuge.StreamPosition{Offset: c.Offset, Epoch: c.Epoch}
		return nil, nil
	case "publish":
		_, err := d.client.Publish(ctx, c.Channel, c.Data)
		return fields{}, err
	case "presence":
		return d.presence(ctx, c.Channel)
	case "presence_stats":
		stats, err := d.client.PresenceStats(ctx, c.Channel)
		return fields{"num_clients": stats.NumClients, "num_users": stats.NumUsers}, err
	case "history":
		return d.history(ctx, c)
	case "rpc":
		result, err := d.client.RPC(ctx, c.Method, c.Data)
		return fields{"data": unpack(result.Data)}, err
	case "received_bytes":
		return d.received.Load(), nil
	}
	return nil, fmt.Errorf("no operation %q", c.Op)
}

func (d *driver) carryOut(c command) {
	result, err := d.do(c)
	if err != nil {
		emit("result", fields{"ref": c.Ref, "error": failure(err)})
		return
	}
	emit("result", fields{"ref": c.Ref, "result": result})
}

func main() {
	if len(os.Args) != 3 {
		panic("client URL json|protobuf")
	}
	d := &driver{
		url: os.Args[1], format: os.Args[2],
		tokens: make(chan token), states: make(chan centrifuge.StreamPosition),
	}
	emit("ready", nil)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var c command
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			panic(err)
		}
		// Those that wait for an answer must not keep others from being carried out, and those that don't keep their order.
		switch c.Op {
		case "publish", "presence", "presence_stats", "history", "rpc", "token", "state":
			go d.carryOut(c)
		default:
			d.carryOut(c)
		}
	}
}
