module ringback-receiver

go 1.22
