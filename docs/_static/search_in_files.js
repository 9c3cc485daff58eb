// A page that was opened as a file may not read other files: there a search lists the pages that it
// finds, without excerpts.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
