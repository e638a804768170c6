package wire

// Code is a stable error code, printed "ONCEQ-1002". Values are on the wire and
// in users' scripts and are only ever appended to.
type Code uint16

const (
	CodeUnreachable        Code = 1001 // no node can be reached (client side)
	CodeNotLeader          Code = 1002 // nothing was appended; retry at the leader
	CodeNoLeader           Code = 1003 // no quorum: nothing was appended
	CodeOverloaded         Code = 1004 // nothing was appended; retry later
	CodeOutcomeUnknown     Code = 1005 // may or may not have happened
	CodeShuttingDown       Code = 1006 // nothing was appended
	CodeWrongCluster       Code = 1007
	CodeWrongGroup         Code = 1008
	CodeDiskFull           Code = 1009 // nothing was appended: a voter's disk is almost full
	CodeSessionExpired     Code = 2001
	CodeFenced             Code = 2002
	CodeBelowFloor         Code = 2003
	CodeWindowFull         Code = 2004
	CodeSealed             Code = 2005
	CodeBodyDiffers        Code = 2006
	CodeOutOfOrder         Code = 2007
	CodeQueueFull          Code = 2008
	CodeTooLarge           Code = 2009
	CodeNoQueue            Code = 2010
	CodeSessionCap         Code = 2011
	CodeOutcomeCap         Code = 2012
	CodeEpochMismatch      Code = 2013
	CodeChecksum           Code = 2014 // the body does not match its checksum
	CodeNotStored          Code = 2015
	CodeIndexCap           Code = 2016 // too many messages with a record of their own
	CodeBadOptions         Code = 2017 // options of a message that exclude each other, or one out of range
	CodeRestored           Code = 2018 // from before a restore: cannot be judged
	CodeLeaseLost          Code = 3001
	CodeConsumerGone       Code = 3002
	CodeStale              Code = 3003
	CodeConsumerCap        Code = 3004
	CodeLeaseCap           Code = 3005 // too many deliveries that their consumers have not answered for
	CodeConflict           Code = 4001
	CodeQueueCap           Code = 4002
	CodeBadName            Code = 4003
	CodeRevision           Code = 4004
	CodeMembership         Code = 4005 // a membership change was refused
	CodeNoNode             Code = 4006
	CodeNotEmpty           Code = 4007 // a restore would replace what is here
	CodeRestoreStale       Code = 4008 // another restore is under way, or this one was replaced
	CodeBadBackup          Code = 4009 // a file that is no backup, or a damaged one
	CodeBackup             Code = 4010 // a backup could not be made or was cut short
	CodeBadSettings        Code = 4011 // settings of a queue that exclude each other, or one out of range
	CodeMalformed          Code = 5001
	CodeUnsupportedVersion Code = 5002
	CodeFrameTooLarge      Code = 5003
	CodeFlowControl        Code = 5004 // publish bytes beyond the window
	CodeSlowReader         Code = 5005
	CodeUnknownOp          Code = 5006
	CodeUnsupported        Code = 5007 // not in this machine version
	CodeInternal           Code = 5008
)
