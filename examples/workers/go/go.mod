module ringback-worker

go 1.22
