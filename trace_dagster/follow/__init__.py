"""The tip follower: new blocks become hot rows within half a second, through any reorganisation."""
