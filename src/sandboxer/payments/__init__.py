"""Money: what a sandbox costs (`prices`), the double-entry book (`ledger`), its file (`codec`), and the one writer of
that file (`credits`). Amounts inside are whole micro-dollars; outside they are decimal strings in US dollars."""
