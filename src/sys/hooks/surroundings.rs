//! What every script gets to see of this process and its tunnel [9.12].
