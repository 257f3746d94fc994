"""The harness: namespaces (net), processes (process), certificates (pki), peers, cases."""
