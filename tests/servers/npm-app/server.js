// What `npm start` runs here: npm runs a shell, the shell runs node, node serves.
'use strict'
require('../selecting.js')
