package wire

import "fmt"

// Error is an ErrorReply as a Go error.
type Error struct {
	ErrorReply
}

// Error is the code and the text: `ONCEQ-2010: no queue "x"`.
func (e *Error) Error() string {
	text := e.Text
	if text == "" {
		if ex, ok := Explain(e.Code); ok {
			text = ex.Name
		} else {
			text = "unknown error"
		}
	}
	return e.Code.String() + ": " + text
}

// Is makes errors.Is compare codes, since nobody compares texts.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// NewErrorReply returns the reply for a code, retriable as the table of codes
// says, with a text of at most TextBytesMax bytes.
func NewErrorReply(code Code, format string, args ...any) ErrorReply {
	text := fmt.Sprintf(format, args...)
	if len(text) > TextBytesMax {
		text = text[:TextBytesMax]
	}
	ex, _ := Explain(code)
	return ErrorReply{Code: code, Retriable: ex.Retriable, Text: text}
}
