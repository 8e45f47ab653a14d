"""The file sensor against real processes: leases, programs that open without blocking, harm to the lessor, floods."""
