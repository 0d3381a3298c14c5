"""Reports: answers as pages for people, and as files for other programs."""
