"""Stream processing: judged events and labelled pairs; thin Faust workers around pure functions."""
