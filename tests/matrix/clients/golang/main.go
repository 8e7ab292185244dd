// SPDX-License-Identifier: Apache-2.0

// The client of the Go SDK: visits servers and tells on stdout what it saw. See tests/matrix/script.py for both formats.
//
// Usage: golang auto|legacy < visits. It goes on with whatever era the server and it agree on.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

const (
	patience = 20 * time.Second
	settling = 50 * time.Millisecond // this SDK may give a result before the progress that came ahead of it
)

type step struct {
	Do        string            `json:"do"`
	Name      string            `json:"name"`
	Arguments map[string]any    `json:"arguments"`
	URI       string            `json:"uri"`
	By        string            `json:"by"`
	Prompt    string            `json:"prompt"`
	Argument  map[string]string `json:"argument"`
	Level     string            `json:"level"`
}

type visit struct {
	Key     string            `json:"key"`
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers"`
	Steps   []step            `json:"steps"`
}

type object = map[string]any

// bearer adds an agent's headers to what is sent.
type bearer struct{ headers map[string]string }

func (b bearer) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	for name, value := range b.headers {
		request.Header.Set(name, value)
	}
	return http.DefaultTransport.RoundTrip(request)
}

// visitor is one session and what was heard in it.
type visitor struct {
	session  *mcp.ClientSession
	mutex    sync.Mutex
	progress [][]any
	logged   [][]any
	begun    chan struct{}
	heard    chan []string
}

func answer(field object) any {
	if value, ok := field["default"]; ok {
		return value
	}
	if choices, ok := field["enum"].([]any); ok {
		return choices[0]
	}
	if choices, ok := field["oneOf"].([]any); ok {
		return choices[0].(object)["const"]
	}
	return map[string]any{"string": "said", "boolean": true, "array": []any{}, "integer": 7, "number": 7}[field["type"].(string)]
}

func (v *visitor) options() *mcp.ClientOptions {
	return &mcp.ClientOptions{
		Capabilities: &mcp.ClientCapabilities{
			RootsV2:     &mcp.RootCapabilities{},
			Elicitation: &mcp.ElicitationCapabilities{Form: &mcp.FormElicitationCapabilities{}, URL: &mcp.URLElicitationCapabilities{}},
		},
		CreateMessageHandler: func(_ context.Context, r *mcp.CreateMessageRequest) (*mcp.CreateMessageResult, error) {
			said := r.Params.Messages[len(r.Params.Messages)-1].Content.(*mcp.TextContent).Text
			return &mcp.CreateMessageResult{Role: "assistant", Model: "none", Content: &mcp.TextContent{Text: "sampled: " + said}}, nil
		},
		ElicitationHandler: func(_ context.Context, r *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
			filled := object{}
			if schema, ok := r.Params.RequestedSchema.(object); ok {
				for name, field := range schema["properties"].(object) {
					filled[name] = answer(field.(object))
				}
			}
			return &mcp.ElicitResult{Action: "accept", Content: filled}, nil
		},
		ToolListChangedHandler: func(context.Context, *mcp.ToolListChangedRequest) { v.hear("changed", "tools") },
		ResourceUpdatedHandler: func(_ context.Context, r *mcp.ResourceUpdatedNotificationRequest) { v.hear("updated", r.Params.URI) },
		LoggingMessageHandler: func(_ context.Context, r *mcp.LoggingMessageRequest) {
			v.mutex.Lock()
			defer v.mutex.Unlock()
			v.logged = append(v.logged, []any{r.Params.Level, r.Params.Data})
		},
		ProgressNotificationHandler: func(_ context.Context, r *mcp.ProgressNotificationClientRequest) {
			v.mutex.Lock()
			defer v.mutex.Unlock()
			v.progress = append(v.progress, []any{r.Params.Progress, r.Params.Total, r.Params.Message})
			select {
			case v.begun <- struct{}{}:
			default:
			}
		},
	}
}

func (v *visitor) hear(what ...string) {
	select {
	case v.heard <- what:
	default:
	}
}

// news waits for the next news of a kind; other news may come at any time.
func (v *visitor) news(ctx context.Context, kind string) (object, error) {
	for {
		select {
		case what := <-v.heard:
			if what[0] == kind {
				return object{"heard": what}, nil
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (v *visitor) call(ctx context.Context, name string, arguments object) (*mcp.CallToolResult, error) {
	params := &mcp.CallToolParams{Name: name, Arguments: arguments}
	params.SetProgressToken(fmt.Sprintf("token of %s", name))
	return v.session.CallTool(ctx, params)
}

func (v *visitor) take(ctx context.Context, s step) (object, error) {
	switch s.Do {
	case "tools":
		return listed(v.session.Tools(ctx, nil))
	case "prompts":
		return listed(v.session.Prompts(ctx, nil))
	case "resources":
		return listed(v.session.Resources(ctx, nil))
	case "templates":
		return listed(v.session.ResourceTemplates(ctx, nil))
	case "call":
		result, err := v.call(ctx, s.Name, s.Arguments)
		time.Sleep(settling)
		v.mutex.Lock()
		defer v.mutex.Unlock()
		return object{"result": result, "progress": v.progress}, err
	case "get":
		arguments := map[string]string{}
		for name, value := range s.Arguments {
			arguments[name] = value.(string)
		}
		result, err := v.session.GetPrompt(ctx, &mcp.GetPromptParams{Name: s.Name, Arguments: arguments})
		return object{"result": result}, err
	case "read":
		result, err := v.session.ReadResource(ctx, &mcp.ReadResourceParams{URI: s.URI})
		return object{"result": result}, err
	case "complete":
		ref := &mcp.CompleteReference{Type: "ref/prompt", Name: s.Prompt}
		given := mcp.CompleteParamsArgument{Name: s.Argument["name"], Value: s.Argument["value"]}
		result, err := v.session.Complete(ctx, &mcp.CompleteParams{Ref: ref, Argument: given})
		return object{"result": result}, err
	case "level":
		return object{}, v.session.SetLoggingLevel(ctx, &mcp.SetLoggingLevelParams{Level: mcp.LoggingLevel(s.Level)})
	case "cancel":
		return v.cancel(ctx, s)
	case "subscribe":
		return v.subscribe(ctx, s)
	case "changed":
		if _, err := v.call(ctx, s.By, object{}); err != nil {
			return nil, err
		}
		return v.news(ctx, "changed")
	}
	return nil, fmt.Errorf("unknown step %q", s.Do)
}

func (v *visitor) cancel(ctx context.Context, s step) (object, error) {
	leaving, leave := context.WithCancel(ctx)
	defer leave()
	ended := make(chan error, 1)
	go func() {
		_, err := v.call(leaving, s.Name, s.Arguments)
		ended <- err
	}()
	select {
	case <-v.begun:
	case err := <-ended:
		return nil, fmt.Errorf("it ended before it began: %v", err)
	}
	leave()
	<-ended
	return object{"cancelled": true}, nil
}

func (v *visitor) subscribe(ctx context.Context, s step) (object, error) {
	if err := v.session.Subscribe(ctx, &mcp.SubscribeParams{URI: s.URI}); err != nil {
		return nil, err
	}
	if _, err := v.call(ctx, s.By, s.Arguments); err != nil {
		return nil, err
	}
	told, err := v.news(ctx, "updated")
	if err != nil {
		return nil, err
	}
	return told, v.session.Unsubscribe(ctx, &mcp.UnsubscribeParams{URI: s.URI})
}

func listed[T any](items func(func(T, error) bool)) (object, error) {
	found := []T{}
	for item, err := range items {
		if err != nil {
			return nil, err
		}
		found = append(found, item)
	}
	return object{"listed": found}, nil
}

func (v *visitor) run(where visit, version string) (object, error) {
	ctx := context.Background()
	client := mcp.NewClient(&mcp.Implementation{Name: "matrix", Version: "1"}, v.options())
	client.AddRoots(&mcp.Root{URI: "file:///matrix", Name: "matrix"})
	transport := &mcp.StreamableClientTransport{
		Endpoint: where.URL, HTTPClient: &http.Client{Transport: bearer{where.Headers}},
	}
	session, err := client.Connect(ctx, transport, &mcp.ClientSessionOptions{ProtocolVersion: version})
	if err != nil {
		return nil, err
	}
	defer session.Close()
	v.session = session
	told := []object{}
	for _, each := range where.Steps {
		told = append(told, v.step(ctx, each))
	}
	greeting := session.InitializeResult()
	return object{
		"version": greeting.ProtocolVersion, "capabilities": greeting.Capabilities,
		"instructions": greeting.Instructions, "told": told,
	}, nil
}

func (v *visitor) step(ctx context.Context, s step) object {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	v.mutex.Lock()
	v.progress, v.logged, v.begun = [][]any{}, nil, make(chan struct{}, 1)
	v.mutex.Unlock()
	told, err := v.take(ctx, s)
	var wire *jsonrpc.Error
	if errors.As(err, &wire) {
		told = object{"error": []any{wire.Code, wire.Message}}
	} else if err != nil {
		told = object{"error": []any{"go", err.Error()}}
	}
	v.mutex.Lock()
	defer v.mutex.Unlock()
	if v.logged != nil {
		told["logged"] = v.logged
	}
	return told
}

func main() {
	var visits []visit
	if err := json.NewDecoder(os.Stdin).Decode(&visits); err != nil {
		panic(err)
	}
	version := ""
	if os.Args[1] == "legacy" {
		version = "2025-11-25"
	}
	all := object{}
	for _, each := range visits {
		told, err := (&visitor{heard: make(chan []string, 16)}).run(each, version)
		if err != nil {
			told = object{"failed": err.Error()}
		}
		all[each.Key] = told
	}
	if err := json.NewEncoder(os.Stdout).Encode(all); err != nil {
		panic(err)
	}
}
