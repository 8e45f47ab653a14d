"""What it means: dataflow between processes and peers, Sigma rules over events, incidents."""
