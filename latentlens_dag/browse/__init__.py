"""What the browser's pages ask: everything about them that can be tested without a page."""
