module tasks

go 1.24
